# docker build -t tunelab . && docker run --rm -v "$PWD/outputs:/tunelab/outputs" tunelab optimizer=adamw lr=1e-3
ARG BASE=python:3.11-slim
FROM ${BASE}

WORKDIR /tunelab
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt torch \
 && pip install --no-cache-dir --constraint constraints.txt --editable .
COPY conf conf
COPY train.py ./

ENTRYPOINT ["python", "train.py"]
