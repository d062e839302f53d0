# Measures of the trained models. An evaluation compares the models of one training or several.
for measure in MEASURES:

    rule:
        name:
            f"evaluate_{measure}"
        input:
            data=data_of_evaluation,
            runs=runs_of_evaluation,
            taken_up=taken_up(measure),
        output:
            made_by(measure, "{evaluation}"),
        log:
            f"{LOGS}/{measure}/{{evaluation}}.log",
        benchmark:
            f"{BENCHMARKS}/{measure}/{{evaluation}}.tsv"
        priority: int(measure in TAKEN_UP)  # these wait for each other, and others for them
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            probing=fits_probes(measure),
        params:
            config=RESOLVED,
            code=fingerprint(f"spatialmae.measures.{measure}", "spatialmae.stages.evaluate"),
            measure=measure,  # the shell command is formatted when all rules are known, the loop long over
            settings=evaluation_settings(measure),
        message:
            f"Evaluating trained models ({measure}): {{wildcards.evaluation}}"
        shell:
            "python -m spatialmae evaluate {params.measure} {wildcards.evaluation} --config {params.config:q} > {log:q} 2>&1"


rule evaluation:
    input:
        EVALUATED,
