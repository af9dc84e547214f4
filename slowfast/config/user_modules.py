"""Python files and packages of the user (USER_MODULES), which register what they define when they are imported."""

import os
import sys
from importlib import import_module, util

from slowfast.utils.errors import UserError


def import_user_module(name: str, where: str) -> str:
    """Import a Python file, or the package in a folder, once, and return its path.

    ``name`` is relative to the folder of the YAML file ``where``, or else to the working directory. The module has the
    name of its file, and its folder comes last on Python's path: so a process that is not forked finds it too when it
    unpickles what is defined there. An error inside the module stays what it is.
    """
    tried = list(dict.fromkeys(os.path.normpath(os.path.join(folder, name)) for folder in (os.path.dirname(where), "")))
    files = {path: path if path.endswith(".py") else os.path.join(path, "__init__.py") for path in tried}
    path = next((path for path in tried if os.path.isfile(files[path])), None)
    if path is None:
        raise UserError(f"{where}: USER_MODULES: {name!r} is no Python file or package (looked for {', '.join(tried)})")
    folder, module = os.path.split(os.path.abspath(path).removesuffix(".py"))
    if folder not in sys.path:
        sys.path.append(folder)
    origin = util.find_spec(module).origin if module.isidentifier() else None
    if origin is None or not os.path.exists(origin) or not os.path.samefile(origin, files[path]):
        problem = f"is the name of another module ({origin})" if origin else "is no name of a module"
        raise UserError(f"{where}: USER_MODULES: {path}: {module} {problem}: rename yours")
    import_module(module)
    return path
