"""The published schema of Chakra traces (MLCommons, et_def.proto), as much as is used, for an independent decoder."""

from __future__ import annotations

STRING, MESSAGE, ENUM, UINT64, INT64, INT32, BOOL, DOUBLE = 9, 11, 14, 4, 3, 5, 8, 1
MESSAGES = {
    "AttributeProto": (
        ("name", 1, STRING), ("doc_string", 2, STRING), ("double_val", 3, DOUBLE), ("int32_val", 7, INT32),
        ("int64_val", 9, INT64), ("uint64_val", 13, UINT64), ("bool_val", 27, BOOL), ("string_val", 29, STRING),
    ),
    "GlobalMetadata": (("version", 1, STRING), ("attr", 2, "AttributeProto*")),
    "Node": (
        ("id", 1, UINT64), ("name", 2, STRING), ("type", 3, UINT64), ("ctrl_deps", 4, "uint64*"),
        ("data_deps", 5, "uint64*"), ("start_time_micros", 6, UINT64), ("duration_micros", 7, UINT64),
        ("attr", 10, "AttributeProto*"),
    ),
}  # fmt: skip
"""Message -> (field, number, type); ``*``: repeated. The values of an attribute are one ``oneof``."""


def classes():
    """Message classes made by the protobuf library from the schema."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="et.proto", package="ChakraProtoMsg", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "AttributeProto":
            message.oneof_decl.add(name="value")
        for field, number, kind in fields:
            row = message.field.add(name=field, number=number)
            repeated = isinstance(kind, str)
            row.label = row.LABEL_REPEATED if repeated else row.LABEL_OPTIONAL
            row.type = {"uint64*": UINT64}.get(kind, MESSAGE) if repeated else kind
            if row.type == MESSAGE:
                row.type_name = f".ChakraProtoMsg.{kind.removesuffix('*')}"
            if name == "AttributeProto" and number > 2:
                row.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ChakraProtoMsg.{name}")) for name in MESSAGES
    }


def read(path):
    """(version, nodes) of a file: each message after its length as a varint."""
    known, data, at = classes(), path.read_bytes(), 0
    found = []
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        message = known["Node" if found else "GlobalMetadata"]()
        message.ParseFromString(data[at : at + size])
        found.append(message)
        at += size
    assert at == len(data)
    return found[0].version, found[1:]


def attributes(node):
    """Name -> value of a node's attributes."""
    return {one.name: getattr(one, one.WhichOneof("value")) for one in node.attr}
