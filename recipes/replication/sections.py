"""The sections of the study's page, in order."""

from replication.page import Section
from replication.section_beyond import beyond_section
from replication.section_calibration import calibration_section
from replication.section_certificate import certificate_section
from replication.section_certificate_limits import certificate_limits
from replication.section_heads import head_section
from replication.section_main import main_tables, stopping_table, tries_table
from replication.section_overlap import crossing_section, overlap_section
from replication.section_prompts import paraphrase_section, span_section
from replication.section_rows import knob_section, row_section
from replication.section_scores import frozen_section, score_section

SECTIONS: tuple[Section, ...] = (
    main_tables,
    score_section,
    stopping_table,
    frozen_section,
    span_section,
    paraphrase_section,
    row_section,
    knob_section,
    overlap_section,
    crossing_section,
    certificate_section,
    certificate_limits,
    calibration_section,
    head_section,
    beyond_section,
    tries_table,
)
