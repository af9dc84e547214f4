"""Python files and packages of the user (USER_MODULES), which register what they define when they are imported."""

import os
import sys
from importlib import import_module, util

from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path, path_in_repository


def import_user_module(name: str, where: str) -> str:
    """Import a Python file, or the package in a folder, once, and return its path, from the repository on.

    ``name`` is relative to the folder of the YAML file ``where``, or else to the repository. The module has the name of
    its file, and its folder comes last on Python's path: so a process that is not forked finds it too when it unpickles
    what is defined there. An error inside the module stays what it is.
    """
    beside = os.path.join(os.path.dirname(os.path.abspath(where)), os.path.expanduser(name))
    tried = list(dict.fromkeys(map(os.path.normpath, (beside, full_path(name)))))
    files = {path: path if path.endswith(".py") else os.path.join(path, "__init__.py") for path in tried}
    path = next((path for path in tried if os.path.isfile(files[path])), None)
    if path is None:
        raise UserError(f"{where}: USER_MODULES: {name!r} is no Python file or package (looked for {', '.join(tried)})")
    folder, module = os.path.split(path.removesuffix(".py"))
    if folder not in sys.path:
        sys.path.append(folder)
    origin = util.find_spec(module).origin if module.isidentifier() else None
    if origin is None or not os.path.exists(origin) or not os.path.samefile(origin, files[path]):
        problem = f"is the name of another module ({origin})" if origin else "is no name of a module"
        raise UserError(f"{where}: USER_MODULES: {path}: {module} {problem}: rename yours")
    import_module(module)
    return path_in_repository(path)
