"""What a trained ticket is written as for people without this library: one carrier, one file."""

from ks_lottery.adapter.export.exporter import export_ticket

__all__ = ["export_ticket"]
