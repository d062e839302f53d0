# Verdicts on the claims of both papers, by the rules of the ledger.
rule judge_claims:
    input:
        rules.linear.input,
        rules.analysis.input,
        rules.probes.input,
        rules.evaluation.input,
        ledger=LEDGER,
    output:
        claims=report(
            str(L.claims),
            caption="../report/claims.rst",
            category=CATEGORIES["both"],
            subcategory="Verdicts",
            labels={"figure": "table: verdicts", "of": "all"},
        ),
        detail=report(
            str(L.tables / "claims_detail.csv"),
            caption="../report/claims.rst",
            category=CATEGORIES["both"],
            subcategory="Verdicts",
            labels={"figure": "table: how each verdict follows", "of": "all"},
        ),
        seeds=str(L.tables / "claims_seeds.csv"),
    log:
        f"{LOGS}/claims.log",
    benchmark:
        f"{BENCHMARKS}/claims.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        code=fingerprint("spatialmae.stages.claims"),
        settings=settings("name", "claims"),
    message:
        "Judging the claims"
    shell:
        "python -m spatialmae claims --config {RESOLVED:q} > {log:q} 2>&1"


rule claims:
    input:
        rules.judge_claims.output,
