"""The diffID of a layer, from a description of it: JSON on standard input, one
object an entry with name, mode, uid, gid and one of `text` (a file), `base64`
(a file) and `target` (a link); without these it is a directory.

Written from the rules of the format, not from the code it is compared with.
"""

import base64
import hashlib
import json
import sys


def octal(number, width):
    return b"%0*o\0" % (width - 1, number)


def header(entry, size, kind, target):
    fields = [
        (entry["name"].encode(), 100),
        (octal(entry["mode"], 8), 8),
        (octal(entry["uid"], 8), 8),
        (octal(entry["gid"], 8), 8),
        (octal(size, 12), 12),
        (octal(315532801, 12), 12),
        (b" " * 8, 8),
        (kind, 1),
        (target, 100),
        (b"ustar\x0000", 8),
        (b"", 64),
        (octal(0, 8), 8),
        (octal(0, 8), 8),
    ]
    block = b"".join(value.ljust(width, b"\0") for value, width in fields).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


tar = b""
for entry in json.load(sys.stdin):
    contents = base64.b64decode(entry["base64"]) if "base64" in entry else entry.get("text", "").encode()
    if "target" in entry:
        tar += header(entry, 0, b"2", entry["target"].encode())
    elif "text" in entry or "base64" in entry:
        tar += header(entry, len(contents), b"0", b"") + contents + b"\0" * (-len(contents) % 512)
    else:
        tar += header(entry, 0, b"5", b"")
print("sha256:" + hashlib.sha256(tar + b"\0" * 1024).hexdigest())
