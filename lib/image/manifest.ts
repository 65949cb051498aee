import { describe, ImageError } from '../errors.js';
import { harmless } from '../text.js';
import { checkDigest, type Digest } from './digest.js';
import * as types from './media-types.js';
import type { ImageConfig } from './types.js';

// Manifests, indexes and configurations of strangers: all that is used of them is checked here, and refused by name.
// image-spec: manifest.md, image-index.md, config.md, descriptor.md.

/** distribution-spec asks registries to take manifests of 4 MiB at least; nobody makes bigger ones. */
export const mostJsonBytes = 4 * 2 ** 20;
const mostLayers = 4096;
const mostManifests = 4096;

export interface Platform {
  readonly os?: string;
  readonly architecture?: string;
  readonly variant?: string;
}
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly platform?: Platform | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}
export interface Manifest {
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}
export interface Index {
  readonly manifests: readonly Descriptor[];
}
/** Of an image's configuration: what is used of it. */
export interface Configuration {
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
  readonly config: ImageConfig;
}

type Json = Record<string, unknown>;

export function wrong(what: string, takes: string, got: unknown): ImageError {
  return new ImageError('ERR_CLOISTER_IMAGE', `${what} has to be ${takes}; it is ${describe(got)}`, { step: 'read the image' });
}

export function parseJson(bytes: Uint8Array, what: string): unknown {
  if (bytes.length > mostJsonBytes) throw new ImageError('ERR_CLOISTER_IMAGE', `${what} is bigger than ${mostJsonBytes} bytes`, { step: 'read the image' });
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ImageError('ERR_CLOISTER_IMAGE', `${what} is not JSON: ${harmless((cause as Error).message)}`, { step: 'read the image', cause });
  }
}

export function objectOf(value: unknown, what: string): Json {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw wrong(what, 'an object', value);
  return value as Json;
}

export function textOf(value: unknown, what: string): string {
  if (typeof value !== 'string' || value.includes('\0')) throw wrong(what, 'a string without NUL bytes', value);
  return value;
}

export function listOf<T>(value: unknown, what: string, item: (value: unknown, what: string) => T, most = mostLayers): T[] {
  if (!Array.isArray(value)) throw wrong(what, 'an array', value);
  if (value.length > most) throw wrong(what, `an array of at most ${most}`, value);
  return value.map((entry, index) => item(entry, `${what}[${index}]`));
}

/** Docker writes null for what is not there. */
const optional = <T>(value: unknown, what: string, read: (value: unknown, what: string) => T): T | undefined =>
  value === undefined || value === null ? undefined : read(value, what);

function textRecord(value: unknown, what: string): Record<string, string> {
  return Object.fromEntries(Object.entries(objectOf(value, what)).map(([key, text]) => [textOf(key, what), textOf(text, `${what}.${harmless(key)}`)]));
}

function platformOf(value: unknown, what: string): Platform {
  const { os, architecture, variant } = objectOf(value, what);
  return {
    ...whereGiven('os', optional(os, `${what}.os`, textOf)),
    ...whereGiven('architecture', optional(architecture, `${what}.architecture`, textOf)),
    ...whereGiven('variant', optional(variant, `${what}.variant`, textOf)),
  };
}

function whereGiven<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

export function descriptorOf(value: unknown, what: string): Descriptor {
  const { mediaType, digest, size, platform, annotations } = objectOf(value, what);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw wrong(`${what}.size`, 'a number of bytes', size);
  return {
    mediaType: textOf(mediaType, `${what}.mediaType`),
    digest: checkDigest(digest, `${what}.digest`),
    size,
    ...whereGiven('platform', optional(platform, `${what}.platform`, platformOf)),
    ...whereGiven('annotations', optional(annotations, `${what}.annotations`, textRecord)),
  };
}

/** `mediaType` is that of the descriptor, which the document must not contradict: a manifest read as an index is another image. */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const json = objectOf(parseJson(bytes, 'the manifest'), 'the manifest');
  checkKind(json, mediaType, 'the manifest');
  if ('manifests' in json) throw wrong('the manifest', 'one image, without a list of manifests', json);
  const config = descriptorOf(json['config'], 'config');
  const artifact = json['artifactType'];
  if (!types.configTypes.includes(config.mediaType) || (typeof artifact === 'string' && artifact !== config.mediaType)) {
    throw wrong('the manifest', "that of an image, with an image's config", typeof artifact === 'string' ? artifact : config.mediaType);
  }
  const layers = listOf(json['layers'], 'layers', descriptorOf);
  for (const [index, layer] of layers.entries()) {
    if (!types.isLayerType(layer.mediaType)) throw wrong(`layers[${index}].mediaType`, 'that of a layer (not encrypted)', layer.mediaType);
  }
  return { mediaType, config, layers };
}

export function parseIndex(bytes: Uint8Array, mediaType: string): Index {
  const json = objectOf(parseJson(bytes, 'the index'), 'the index');
  checkKind(json, mediaType, 'the index');
  if ('layers' in json || 'config' in json) throw wrong('the index', 'a list of manifests, without layers of its own', json);
  return { manifests: listOf(json['manifests'], 'manifests', descriptorOf, mostManifests) };
}

function checkKind(json: Json, mediaType: string, what: string): void {
  if (json['schemaVersion'] !== 2) throw wrong(`schemaVersion of ${what}`, '2', json['schemaVersion']);
  if (json['mediaType'] !== undefined && json['mediaType'] !== mediaType) throw wrong(`mediaType of ${what}`, mediaType, json['mediaType']);
}

export function parseConfiguration(bytes: Uint8Array): Configuration {
  const json = objectOf(parseJson(bytes, 'the configuration'), 'the configuration');
  const rootfs = objectOf(json['rootfs'], 'rootfs');
  if (rootfs['type'] !== 'layers') throw wrong('rootfs.type', "'layers'", rootfs['type']);
  return {
    platform: platformOf(json, 'the configuration'),
    diffIds: listOf(rootfs['diff_ids'] ?? [], 'rootfs.diff_ids', checkDigest),
    config: optional(json['config'], 'config', imageConfigOf) ?? {},
  };
}

const texts = (value: unknown, what: string): string[] => listOf(value, what, textOf);
const emptyObjects = (value: unknown, what: string): Record<string, object> =>
  Object.fromEntries(Object.entries(objectOf(value, what)).map(([key, entry]) => [textOf(key, what), objectOf(entry ?? {}, `${what}.${harmless(key)}`)]));

function variables(value: unknown, what: string): string[] {
  return listOf(value, what, (entry, where) => {
    const text = textOf(entry, where);
    if (text.startsWith('=')) throw wrong(where, 'NAME=value', text);
    return text;
  });
}

/** Only what the contract names, under its own names; empty strings are what Go writes for nothing. */
export function imageConfigOf(value: unknown, what: string): ImageConfig {
  const json = objectOf(value, what);
  const read = <K extends keyof ImageConfig>(key: K, as: (value: unknown, what: string) => NonNullable<ImageConfig[K]>): { [P in K]?: ImageConfig[P] } => {
    const given = json[key] === '' ? undefined : optional(json[key], `${what}.${key}`, as);
    return given === undefined ? {} : ({ [key]: given } as { [P in K]?: ImageConfig[P] });
  };
  return {
    ...read('Env', variables),
    ...read('Entrypoint', texts),
    ...read('Cmd', texts),
    ...read('User', textOf),
    ...read('WorkingDir', textOf),
    ...read('StopSignal', textOf),
    ...read('ExposedPorts', emptyObjects),
    ...read('Volumes', emptyObjects),
    ...read('Labels', textRecord),
  };
}
