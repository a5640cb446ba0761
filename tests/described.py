"""Networks in words that tests compare."""


def describe(model):
    """Everything outside the dense chain that must survive."""
    return {
        "inputs": [value.SerializeToString() for value in model.graph.input],
        "outputs": [value.SerializeToString() for value in model.graph.output],
        "opsets": sorted((entry.domain, entry.version) for entry in model.opset_import),
        "ir": model.ir_version,
        "metadata": [(entry.key, entry.value) for entry in model.metadata_props],
        "docs": (model.doc_string, model.graph.doc_string, model.graph.name, model.domain, model.model_version),
        "producer": (model.producer_name, model.producer_version),
    }
