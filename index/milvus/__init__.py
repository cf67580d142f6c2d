"""A zoo in Milvus (https://milvus.io): on a server, or in files of this machine through milvus-lite."""
