# Analyses of the trained models: Jacobians, the bound of second moments, probes. An evaluation compares the models of one
# stage of training or several.
for analysis, (module, tables) in MODEL_ANALYSES.items():

    rule:
        name:
            f"evaluate_{analysis}"
        input:
            config=ancient(str(L.config)),
            data=data_of_evaluation,
            manifests=manifests_of,
            code=code(f"spatialmae.stages.{module}"),
        output:
            [str(L.table(table, "{evaluation}")) for table in tables],
        log:
            f"{LOGS}/{analysis}/{{evaluation}}.log",
        benchmark:
            f"{BENCHMARKS}/{analysis}/{{evaluation}}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        params:
            runs=runs_of_evaluation,
            settings=evaluation_settings,
        message:
            f"Evaluating trained models ({analysis}): {{wildcards.evaluation}}"
        shell:
            f"python -m spatialmae evaluate {analysis} {{wildcards.evaluation}} --config {{input.config}} > {{log}} 2>&1"


rule evaluation:
    input:
        EVALUATED,
