# tinyyolo on a CPU. Build and run the demo (a training on drawn scenes, about five minutes on two cores):
#   docker build -t tinyyolo . && docker run --rm --ipc=host -v "$PWD/runs:/work/runs" tinyyolo
# Any other command: docker run --rm --ipc=host -v "$PWD:/work" tinyyolo predict source=scene.tif out=boxes.geojson
# Samples travel between processes in shared memory, of which a container has 64 MB without --ipc=host.
# For a GPU build with --build-arg TORCH=https://pypi.org/simple and run with --gpus all.
FROM python:3.11-slim-bookworm
# What opencv-python loads.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
ARG TORCH=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH" torch torchvision
COPY . /src
RUN pip install --no-cache-dir '/src[geo]' && rm -rf /src
ENV YOLO_OFFLINE=1 YOLO_AUTOINSTALL=false
WORKDIR /work
ENTRYPOINT ["tinyyolo"]
CMD ["train"]
