"""The function: everything else is in regraft."""

from regraft.aws import collection_handler

handler = collection_handler("collection.yaml")
