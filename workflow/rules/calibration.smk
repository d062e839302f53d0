# What the recommender's rules are worth on data sets whose grids of patch size and masking ratio were measured.
rule calibrate:
    input:
        [str(L.table("linear_probe", name)) for name in CONFIG.calibration],
        data_of_calibration(),
    output:
        [str(L.table("calibration", name)) for name in ("cells", "held_out", "comparison")],
    log:
        f"{LOGS}/calibration.log",
    benchmark:
        f"{BENCHMARKS}/calibration.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        config=RESOLVED,
        code=fingerprint("spatialmae.stages.calibration"),
        evaluations=CONFIG.calibration,
    message:
        "Calibrating the recommender"
    shell:
        "python -m spatialmae calibrate --config {params.config:q} > {log:q} 2>&1"


rule calibration:
    input:
        rules.calibrate.output if CONFIG.calibration else [],
