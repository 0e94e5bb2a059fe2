"""The asset graph: thin definitions over `research` and the recorder.

Domain code imports no Dagster.
"""
