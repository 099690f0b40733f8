"""Many clips: a folder or a list of jobs in, a folder of edits out, by as many ComfyUI servers as there are GPUs.

The driver reads the jobs, keeps the journal and hands jobs out; a worker, a process of its own for every GPU, owns a
headless ComfyUI server, again a process of its own, and drives it over HTTP and websocket.
"""
