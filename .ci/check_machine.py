"""Say in one line what this machine lacks to build the project; exit 1 if anything is missing."""

import importlib.util
import pathlib
import shutil
import sys
import sysconfig

missing = []
if sys.version_info < (3, 10):
    missing.append(f'Python >= 3.10 (this is {sys.version.split()[0]}; set PYTHON=...)')
if importlib.util.find_spec('venv') is None or importlib.util.find_spec('ensurepip') is None:
    missing.append('venv (Debian, Ubuntu: apt install python3-venv)')
if not (pathlib.Path(sysconfig.get_paths()['include']) / 'Python.h').exists():
    missing.append('Python headers (Debian, Ubuntu: apt install python3-dev)')
if shutil.which('c++') is None and shutil.which('g++') is None:
    missing.append('a C++ compiler (Debian, Ubuntu: apt install g++)')
if missing:
    sys.exit('missing on this machine: ' + '; '.join(missing))
