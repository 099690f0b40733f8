"""Import this before anything of ComfyUI in a process that is not its server.

It keeps ComfyUI off the command line and, without a GPU, on the CPU.
"""

import os
import sys

import torch

if os.environ["LIVEDITOR_COMFYUI"] not in sys.path:
    sys.path.insert(0, os.environ["LIVEDITOR_COMFYUI"])

import comfy.options  # noqa: F401
from comfy.cli_args import args

args.cpu = not torch.cuda.is_available()
