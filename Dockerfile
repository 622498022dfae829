# The images of Lictor: `docker build .` is the agent; --target agent-root, control-plane and winsim are the others.
# What they hold, and how to build them for other bases and architectures: docs/images.md.
#
# BUILDER_IMAGE and RUNTIME_IMAGE belong together: the programs use the C library and the OpenSSL 3 of the system that they run
# on, and one that was linked against a newer C library than the runtime has does not start. The defaults are both Debian 12.
# For Red Hat's UBI 9 make a builder from UBI 9 as well; deploy/image/packages knows both kinds of package managers.

ARG BUILDER_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=docker.io/library/debian:bookworm-slim

# ---- What is built ---------------------------------------------------------------------------------------------------------
FROM ${BUILDER_IMAGE} AS builder
WORKDIR /src
RUN --mount=type=bind,source=deploy/image,target=/run/image /run/image/packages builder
ARG CYCLONEDX_VERSION=0.5.9
# Says what the programs are made of. A builder image that brings it along is not made to build it again.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    command -v cargo-cyclonedx || cargo install --locked --root /usr/local "cargo-cyclonedx@${CYCLONEDX_VERSION}"
COPY . .
ARG PROFILE=release
# All programs in one run, so that what they share is built once. Between builds the downloads and the compiled dependencies stay
# in caches that are no part of any layer; those of other systems and architectures lie beside each other.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/var/cache/lictor-target,sharing=locked \
    deploy/image/build "${PROFILE}" /var/cache/lictor-target /out

# ---- What the images stand on ----------------------------------------------------------------------------------------------
FROM ${RUNTIME_IMAGE} AS control-plane-base
COPY LICENSE /usr/share/lictor/LICENSE
RUN --mount=type=bind,source=deploy/image,target=/run/image \
    /run/image/packages control-plane && /run/image/users /var/lib/lictor-control-plane

FROM ${RUNTIME_IMAGE} AS agent-base
COPY LICENSE /usr/share/lictor/LICENSE
RUN --mount=type=bind,source=deploy/image,target=/run/image \
    /run/image/packages agent && /run/image/users /var/lib/lictor-agent /opt/harness-delegate/ca-bundle

# ---- What they are made of: the crates of the programs and the packages of the system, in one document per image -----------
FROM builder AS sbom
ARG VERSION=0.2.0
COPY --from=agent-base /usr/share/lictor/*.tsv /sbom/agent/
COPY --from=control-plane-base /usr/share/lictor/*.tsv /sbom/control-plane/
RUN deploy/image/sbom lictor-agent "${VERSION}" /sbom/agent /out/sbom lictor-agent lictor >/sbom/agent.cdx.json \
    && deploy/image/sbom lictor-control-plane "${VERSION}" /sbom/control-plane /out/sbom lictor-control-plane lictor \
       >/sbom/control-plane.cdx.json \
    && deploy/image/sbom lictor-winsim "${VERSION}" /sbom/control-plane /out/sbom winsim >/sbom/winsim.cdx.json

# ---- winsim: a simulated Windows host, for trials ---------------------------------------------------------------------------
FROM control-plane-base AS winsim
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.title="lictor-winsim" \
      org.opencontainers.image.description="A simulated Windows host that speaks WinRM, for trials of Lictor" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=builder /out/bin/winsim /usr/local/bin/
COPY --from=sbom /sbom/winsim.cdx.json /usr/share/lictor/sbom.cdx.json
ENV HOME=/tmp
USER 10001:0
WORKDIR /tmp
EXPOSE 5985 5986
ENTRYPOINT ["winsim"]
CMD ["--help"]

# ---- The control plane ------------------------------------------------------------------------------------------------------
FROM control-plane-base AS control-plane
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.title="lictor-control-plane" \
      org.opencontainers.image.description="Lictor's control plane: takes tasks from users and gives them to agents" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=builder /out/bin/lictor-control-plane /out/bin/lictor /usr/local/bin/
COPY --from=sbom /sbom/control-plane.cdx.json /usr/share/lictor/sbom.cdx.json
ENV HOME=/tmp \
    LICTOR_CONTROL_PLANE_STATE_DIR=/var/lib/lictor-control-plane \
    LICTOR_CONTROL_PLANE_LISTEN=0.0.0.0:7443 \
    LICTOR_CONTROL_PLANE_HTTP_LISTEN=0.0.0.0:7480
USER 10001:0
WORKDIR /tmp
EXPOSE 7443 7480
ENTRYPOINT ["lictor-control-plane"]
CMD ["run"]

# ---- The agent, as both variants have it --------------------------------------------------------------------------------------
FROM agent-base AS agent-files
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.title="lictor-agent" \
      org.opencontainers.image.description="Lictor's agent: receives remote-execution tasks and runs them on Windows hosts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=builder /out/bin/lictor-agent /out/bin/lictor /usr/local/bin/
COPY --from=sbom /sbom/agent.cdx.json /usr/share/lictor/sbom.cdx.json
ENV LICTOR_AGENT_STATE_DIR=/var/lib/lictor-agent \
    LICTOR_AGENT_HTTP_LISTEN=0.0.0.0:3460
EXPOSE 3460
# The program is the container's first process: it takes in every process that loses its parent, and acts on SIGTERM at every
# moment of its start. docs/images.md says how that is tested.
ENTRYPOINT ["lictor-agent"]
CMD ["run"]

# ---- The agent for start scripts that write /etc and install packages ---------------------------------------------------------
FROM agent-files AS agent-root
# Root is what this variant is for; the default image has another user.
# hadolint ignore=DL3002
USER 0:0
WORKDIR /root

# ---- The agent: any user, a root file system that is only read, no capabilities -----------------------------------------------
FROM agent-files AS agent
ENV HOME=/tmp
USER 10001:0
WORKDIR /tmp
