"""A zoo in Milvus (https://milvus.io): by an address, or in files of this machine through milvus-lite."""

from loradex.index.milvus.zoo import MilvusZoo

__all__ = ["MilvusZoo"]
