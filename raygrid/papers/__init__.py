"""The papers' tables and figures by number: questions to trials, and what the figures show."""
