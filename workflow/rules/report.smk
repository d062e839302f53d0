# The report: one page that opens without a network, and the provenance of what it shows.
rule write_report:
    input:
        rules.figures.input,
        rules.judge_claims.output,
        rules.training.input,
        rules.evaluation.input,
        rules.analysis.input,
        expand(str(L.data("{dataset}")), dataset=DATASETS),
        config=ancient(str(L.config)),
        ledger=CONFIG.claims.ledger,
        deviations="docs/deviations.md",
        template=sorted(
            str(path) for pattern in ("*.j2", "*.css", "*.js") for path in Path("src/spatialmae/report").glob(pattern)
        ),
        code=code("spatialmae.stages.report"),
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
        datasets=DATASETS,
        figures=[(figure.stem, figure.kind.section, figure.caption) for figure in drawn_figures(CONFIG)],
        settings=settings("name", "first_seed"),
    message:
        "Writing the report"
    shell:
        "python -m spatialmae report --config {input.config} > {log} 2>&1"


# Snakemake makes a missing file again only if a target names it, hence the manifests.
rule report:
    input:
        rules.write_report.output,
        MANIFESTS,
