// Manifests, indexes and configurations that were good, and then something happened to them: what is read of them is as it has to be, or the
// refusal is an ImageError. CLOISTER_SEED=n repeats a failure; CLOISTER_FUZZ=n makes n of each in place of 1500.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImageError, LayerStore } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { isDigest } from '../../dist/image/digest.js';
import { parseConfiguration, parseIndex, parseManifest } from '../../dist/image/manifest.js';
import { choose } from '../../dist/image/platform.js';
import { sha256 } from '../helpers/images.js';
import { Random, seeds } from '../helpers/random.js';
import { archive, file } from '../helpers/raw-tar.js';
import { repeats } from '../helpers/repeats.js';
import { temporary } from '../integration/trees.js';

const count = repeats(1500, 'CLOISTER_FUZZ');

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const indexType = 'application/vnd.oci.image.index.v1+json';
const layer = archive(file('a', 'x'));
const digest = sha256(layer);
const descriptor = (mediaType: string, bytes: string | Buffer, more: object = {}): object => ({
  mediaType,
  digest: sha256(bytes),
  size: Buffer.byteLength(bytes),
  ...more,
});
const config = {
  os: 'linux',
  architecture: 'amd64',
  variant: '',
  config: {
    Env: ['A=1'],
    Cmd: ['x'],
    Entrypoint: null,
    User: '0:0',
    WorkingDir: '/',
    Labels: { a: 'b' },
    ExposedPorts: { '80/tcp': {} },
    Volumes: { '/v': {} },
  },
  rootfs: { type: 'layers', diff_ids: [digest] },
  history: [{ created_by: 'x' }],
};
const manifest = {
  schemaVersion: 2,
  mediaType: manifestType,
  config: descriptor('application/vnd.oci.image.config.v1+json', JSON.stringify(config)),
  layers: [descriptor('application/vnd.oci.image.layer.v1.tar', layer)],
  annotations: { a: 'b' },
};
const index = {
  schemaVersion: 2,
  mediaType: indexType,
  manifests: [
    descriptor(manifestType, JSON.stringify(manifest), {
      platform: { os: 'linux', architecture: 'amd64' },
      annotations: { 'org.opencontainers.image.ref.name': 'n' },
    }),
    descriptor(manifestType, '{}', { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } }),
  ],
};

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
const odd: readonly Json[] = [
  null,
  true,
  0,
  -1,
  0.5,
  1e308,
  '',
  '\0',
  '../..',
  '\u001b[2J\u202e',
  'sha256:',
  [],
  {},
  [[]],
  { constructor: { name: 1 } },
  { toString: 1 },
  'x'.repeat(5000),
];
const oddKeys = ['__proto__', 'constructor', 'toString', '', '\0', 'digest', 'size', 'length', '0'];

/** One place in it is something else, has gone, or is there twice. */
function mutated(value: Json, random: Random): Json {
  if (value === null || typeof value !== 'object' || random.below(6) === 0) {
    if (typeof value === 'string' && value.length > 0 && random.below(2) === 0) {
      const at = random.below(value.length);
      return value.slice(0, at) + random.pick(['', '\0', 'A', '/', value]) + value.slice(at + 1);
    }
    return random.pick(odd);
  }
  if (Array.isArray(value)) {
    if (value.length === 0) return [random.pick(odd)];
    const at = random.below(value.length);
    const act = random.below(4);
    if (act === 0) return value.toSpliced(at, 1);
    if (act === 1) return [...value, ...value];
    return value.with(at, mutated(value[at] as Json, random));
  }
  const keys = Object.keys(value);
  const key = keys.length > 0 && random.below(5) > 0 ? random.pick(keys) : random.pick(oddKeys);
  const entries = Object.entries(value).filter(([name]) => name !== key);
  if (random.below(5) === 0) return Object.fromEntries(entries);
  return Object.fromEntries([...entries, [key, mutated((Object.hasOwn(value, key) ? value[key] : random.pick(odd)) as Json, random)]]);
}

function mutant(good: object, random: Random): Buffer {
  let json = good as Json;
  for (let rounds = 1 + random.below(3); rounds > 0; rounds--) json = mutated(json, random);
  const bytes = Buffer.from(JSON.stringify(json) ?? '');
  if (random.below(5) === 0 && bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
  return random.below(10) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

const strings = (values: readonly unknown[]): boolean => values.every((value) => typeof value === 'string' && !value.includes('\0'));

test('manifests, indexes and configurations', () => {
  let taken = 0;
  const attempt = (told: string, work: () => boolean): void => {
    try {
      expect([told, work()]).toEqual([told, true]);
      taken++;
    } catch (error) {
      if (!(error instanceof ImageError)) throw new Error(told, { cause: error });
      // biome-ignore lint/suspicious/noControlCharactersInRegex: none may be there
      expect([told, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/.test(error.message), error.message.length < 2000]).toEqual([told, false, true]);
    }
  };
  for (const seed of seeds(count)) {
    const random = new Random(seed);
    const told = `CLOISTER_SEED=${seed}`;
    attempt(told, () => {
      const found = parseManifest(mutant(manifest, random), manifestType);
      return [found.config, ...found.layers].every((part) => isDigest(part.digest) && Number.isSafeInteger(part.size) && part.size >= 0);
    });
    attempt(told, () => isDigest(choose(parseIndex(mutant(index, random), indexType).manifests, { architecture: 'amd64' }).digest));
    attempt(told, () => {
      const { diffIds, config: found } = parseConfiguration(mutant(config, random));
      const { Env = [], Cmd = [], Entrypoint = [], User = '', WorkingDir = '', Labels = {}, Volumes = {}, ExposedPorts = {} } = found;
      return (
        diffIds.every(isDigest) &&
        strings([...Env, ...Cmd, ...Entrypoint, User, WorkingDir, ...Object.values(Labels), ...Object.keys({ ...Labels, ...Volumes, ...ExposedPorts })])
      );
    });
  }
  if (process.env['CLOISTER_SEED'] === undefined) expect(taken).toBeGreaterThan(count / 4);
  expect(({} as { schemaVersion?: unknown }).schemaVersion).toBeUndefined();
});

test('whole layouts', async () => {
  const store = await LayerStore.open(join(temporary(), 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  for (const seed of seeds(Math.ceil(count / 30))) {
    const random = new Random(seed);
    const told = `CLOISTER_SEED=${seed}`;
    const layout = join(temporary(), 'layout');
    mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
    const blob = (bytes: Buffer): object => {
      writeFileSync(join(layout, 'blobs/sha256', sha256(bytes).slice(7)), bytes);
      return { digest: sha256(bytes), size: bytes.length };
    };
    const maybe = (good: object): Buffer => (random.below(3) === 0 ? mutant(good, random) : Buffer.from(JSON.stringify(good)));
    blob(layer);
    const inner = blob(maybe({ ...manifest, config: { ...manifest.config, ...blob(maybe(config)) } }));
    writeFileSync(join(layout, 'index.json'), maybe({ ...index, manifests: [{ ...index.manifests[0], ...inner }, index.manifests[1]] }));
    writeFileSync(join(layout, 'oci-layout'), maybe({ imageLayoutVersion: '1.0.0' }));
    await store.importImage(layout, { platform: { architecture: 'amd64' } }).catch((error) => {
      if (!(error instanceof ImageError)) throw new Error(told, { cause: error });
    });
  }
  expect(await store.verify()).toMatchObject({ ok: true });
});
