"""For every pytest run that reaches into this checkout, also from elsewhere through an editable install.

So nothing here may touch another project's tests; what il_bench's own tests need is in tests/conftest.py.
"""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame: no screen is needed
