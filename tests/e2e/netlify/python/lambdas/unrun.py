import pathlib

pathlib.Path("notes", "unrun").write_text('"it was run"\n')

config = {
    "path": ["/unrun/:word", "/unrun"],
    "method": ["GET", "PUT"],
    "background": True,
}


def handler(event, context):
    return None
