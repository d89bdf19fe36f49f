#!/bin/sh
# Sees to it that there is a Chromium for the tests of the page: one that is there, or Debian's (as root), or the one that
# Playwright brings. Where none of this works it says so at length, and the tests skip themselves saying so again.
# Usage: chromium.sh PYTHON
present() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}
root=""
[ "$(id -u)" = 0 ] || root="sudo -n"

present && exit 0
if command -v apt-get >/dev/null 2>&1; then
    echo "no Chromium here: installing Debian's"
    log=$(mktemp)
    { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        chromium fonts-liberation; } >"$log" 2>&1 || tail -n 5 "$log"
    rm -f "$log"
    present && exit 0
fi
echo "no Chromium from the system: trying Playwright's"
"$1" -m playwright install chromium && exit 0
cat <<'END'
**********************************************************************************
*  THE PAGE IS NOT TESTED: there is no Chromium and none could be installed.      *
*  Install one (as root: apt-get install chromium) and run make test-browser.     *
**********************************************************************************
END
exit 0
