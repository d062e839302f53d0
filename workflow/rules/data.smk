# Images with targets and splits.
def data_code(wildcards):
    """Code of a data set: its own source's, and no other's."""
    kind = CONFIG.datasets[wildcards.dataset].source.kind
    source = "photos" if kind in ("textures", "depth") else kind
    return code(f"spatialmae.data.{source}") + code("spatialmae.stages.data")


def own_images(wildcards):
    """A user's folder of images, where the data set is one."""
    source = CONFIG.datasets[wildcards.dataset].source
    return [source.path] if source.kind == "folder" else []


rule prepare_data:
    input:
        config=ancient(str(L.config)),
        code=data_code,
        images=own_images,
    output:
        str(L.data("{dataset}")),
    log:
        f"{LOGS}/data/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/data/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        settings=settings("source", "seeds"),
    message:
        "Preparing images: {wildcards.dataset}"
    shell:
        RUN + " data {wildcards.dataset} --config {input.config} > {log} 2>&1"


rule data:
    input:
        expand(str(L.data("{dataset}")), dataset=DATASETS),
