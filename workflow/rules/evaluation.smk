# Analyses of the trained models: Jacobians, the bound of second moments, probes, fine-tuning. An evaluation compares the
# models of one stage of training or several.
for analysis in MODEL_ANALYSES:

    rule:
        name:
            f"evaluate_{analysis}"
        input:
            data=data_of_evaluation,
            runs=runs_of_evaluation,
            probes=probes_taken_up(analysis),
        output:
            made_by(analysis, "{evaluation}"),
        log:
            f"{LOGS}/{analysis}/{{evaluation}}.log",
        benchmark:
            f"{BENCHMARKS}/{analysis}/{{evaluation}}.tsv"
        priority: int(analysis == "probe")  # these wait for each other, and others for them
        conda:
            ENVIRONMENT
        threads: workflow.cores if analysis == "fine_tuning" else 1  # whose time is measured: nothing runs beside it
        resources:
            probing=fits_probes(analysis),
        params:
            code=fingerprint(f"spatialmae.stages.{MODEL_ANALYSES[analysis].stage}"),
            analysis=analysis,  # the shell command is formatted when all rules are known, the loop long over
            settings=evaluation_settings(analysis),
        message:
            f"Evaluating trained models ({analysis}): {{wildcards.evaluation}}"
        shell:
            "python -m spatialmae evaluate {params.analysis} {wildcards.evaluation} --config {RESOLVED:q} > {log:q} 2>&1"


rule evaluation:
    input:
        EVALUATED,
