"""Videos whose classes are motions, made by the project itself."""
