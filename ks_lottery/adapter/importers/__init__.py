"""Sparse fine-tunings that other libraries wrote, as a ticket and an adapter."""

from ks_lottery.adapter.importers.sft import import_sft

__all__ = ["import_sft"]
