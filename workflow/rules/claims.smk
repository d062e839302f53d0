# Verdicts on the claims of both papers, by the rules of the ledger, from the parts of the study that are finished.


rule finish_part:
    input:
        lambda wildcards: tables_of_part(PARTS[wildcards.part]),
        lambda wildcards: [str(L.data(dataset)) for dataset in CONFIG.only([wildcards.part]).datasets],
    output:
        str(L.part("{part}")),
    log:
        f"{LOGS}/part/{{part}}.log",
    benchmark:
        f"{BENCHMARKS}/part/{{part}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.part"),
        sections=lambda wildcards: PARTS[wildcards.part].sections,
    message:
        "Finishing the part {wildcards.part}"
    shell:
        "python -m spatialmae part {wildcards.part} --config {params.config:q} > {log:q} 2>&1"


rule judge_claims:
    input:
        [str(L.part(part)) for part in REQUESTED],
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
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.claims"),
        parts=SHOWN,
        settings=settings("name", "claims"),
    message:
        "Judging the claims"
    shell:
        "python -m spatialmae claims --config {params.config:q} > {log:q} 2>&1"


# A part of a study is a target of its own, with the report of all parts made so far.
for part in CONFIG.parts:

    rule:
        name:
            part
        input:
            str(L.part(part)),
            str(L.report),


rule claims:
    input:
        rules.judge_claims.output,
