# Measures of the trained models. An evaluation compares the models of one training or several.
for measure in MEASURES:

    rule:
        name:
            f"evaluate_{measure}"
        input:
            config=ancient(str(L.config)),
            data=data_of_evaluation,
            manifests=manifests_of,
            taken_up=ancient(taken_up(measure)),
            code=code(f"spatialmae.measures.{measure}") + code("spatialmae.stages.evaluate"),
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
            measure=measure,  # the shell command is formatted when all rules are known, the loop long over
            runs=runs_of_evaluation,
            settings=evaluation_settings(measure),
        message:
            f"Evaluating trained models ({measure}): {{wildcards.evaluation}}"
        shell:
            "python -m spatialmae evaluate {params.measure} {wildcards.evaluation} --config {input.config} > {log} 2>&1"


rule evaluation:
    input:
        EVALUATED,
