# The report: one page that opens without a network, and the provenance of what it shows.
rule write_report:
    input:
        rules.figures.input,
        rules.judge_claims.output,
        [str(L.part(part)) for part in REQUESTED],
        ledger=LEDGER,
        deviations=in_repository("docs/deviations.md"),
        template=[
            str(path)
            for suffix in ("j2", "css", "js")
            for path in sorted(Path(in_repository("src/spatialmae/report")).glob(f"*.{suffix}"))
        ],
    output:
        report=str(L.report),
        provenance=str(L.provenance),
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{BENCHMARKS}/report.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.report"),
        parts=SHOWN,
        figures=[(figure.stem, figure.kind.section, figure.caption) for figure in drawn_figures(OF_SHOWN)],
        settings=settings("name", "first_seed"),
    message:
        "Writing the report"
    shell:
        "python -m spatialmae report --config {params.config:q} --deviations {input.deviations:q} > {log:q} 2>&1"


# Snakemake makes a missing file again only if a target names it, hence the runs.
rule report:
    input:
        rules.write_report.output,
        [str(L.run(run.name)) for run in OF_REQUESTED.all_runs()],
