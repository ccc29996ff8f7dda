"""`python scripts/generate_service_token.py NAME [--days N]`, as the second integration document has
it: `streamlined token generate`, of the program in STREAMLINED, of the one built here, or of PATH."""

import os
import pathlib
import shutil
import sys

built = pathlib.Path(__file__).resolve().parent.parent / "target/release/streamlined"
program = os.environ.get("STREAMLINED") or shutil.which(built) or shutil.which("streamlined")
if program is None:
    sys.exit("generate_service_token.py: no streamlined on the PATH; build it with cargo build --release")
os.execv(program, [program, "token", "generate", *sys.argv[1:]])
