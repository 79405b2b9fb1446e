"""A report of rows, as it would be read."""

from il_bench.report import schema


def report(**sections: object) -> schema.Report:
    return schema.Report.model_validate(
        {"created": "2026-01-02T03:04:05Z", "environment": {"cpu": "<x>"}, **sections}
    )
