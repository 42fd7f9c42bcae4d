has_cuda: bool
cuda_archs: str
torch_version: str
compiler: str

def isa() -> str: ...
def available_isas() -> list[str]: ...
