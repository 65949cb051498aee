import type { Compression } from '../tree/compression.js';

// image-spec, media-types.md, and Docker's own older names (distribution, "Image Manifest Version 2, Schema 2").

export const ociIndex = 'application/vnd.oci.image.index.v1+json';
export const ociManifest = 'application/vnd.oci.image.manifest.v1+json';
export const ociConfig = 'application/vnd.oci.image.config.v1+json';
export const dockerList = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const dockerManifest = 'application/vnd.docker.distribution.manifest.v2+json';
export const dockerConfig = 'application/vnd.docker.container.image.v1+json';

export const indexTypes: readonly string[] = [ociIndex, dockerList];
export const manifestTypes: readonly string[] = [ociManifest, dockerManifest];
export const configTypes: readonly string[] = [ociConfig, dockerConfig];

export const layerMediaTypes: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

/** In a manifest of Docker's, by what they are called in one of OCI's. */
export const dockerLayerTypes: Readonly<Record<string, string>> = {
  [layerMediaTypes.none]: 'application/vnd.docker.image.rootfs.diff.tar',
  [layerMediaTypes.gzip]: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  [layerMediaTypes.zstd]: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
};

/** What the bytes are is told by their beginning; this refuses what is no layer at all: encrypted ones, charts, signatures. */
export const isLayerType = (type: string): boolean =>
  /^application\/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar(\+(gzip|zstd))?|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip|\.zstd)?)$/.test(
    type,
  );
