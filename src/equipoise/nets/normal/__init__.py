"""NORMAL (chapter 5 of the thesis): tasks at learned positions on a flow of features."""
