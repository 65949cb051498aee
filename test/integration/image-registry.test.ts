// The registry protocol, with a server that misbehaves as servers do.
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type Image, type ImageProgress, type LayerStore, OverlayRootfs, runIsolated } from 'cloister';
import { beforeAll, describe, expect, test } from 'vitest';
import { parseReference } from '../../lib/image/reference.js';
import { parseChallenges } from '../../lib/image/registry-auth.js';
import { digests, newStore, rootTar, sha256, tarOf, told } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { type Blobs, dockerRegistry, ownRegistry, type Trouble } from '../helpers/registry.js';
import { temporary } from './trees.js';

const manifestType = 'application/vnd.oci.image.manifest.v1+json';

/** An image of two layers that don't compress, as a registry has it. */
async function published(): Promise<{ blobs: Blobs; image: Image; big: string; small: string }> {
  const store = await newStore();
  const big = await store.import(tarOf({ big: randomBytes(3_000_000).toString('latin1') }));
  const image = await store.createImage({ layers: [await store.import(tarOf({ small: 'x' })), big], config: { Cmd: ['/x'] } });
  const layout = join(temporary(), 'layout');
  await store.exportImage(image, layout);
  const files = readdirSync(join(layout, 'blobs/sha256'));
  const content = new Map(files.map((hex) => [`sha256:${hex}`, readFileSync(join(layout, 'blobs/sha256', hex))]));
  const bytes = content.get(image.digest) as Buffer;
  const [small, large] = JSON.parse(bytes.toString()).layers.map(({ digest }: { digest: string }) => digest);
  return { blobs: { content, manifests: new Map([['latest', { type: manifestType, bytes }]]) }, image, big: large, small };
}

const insecure = { insecure: true } as const;

describe('pull', () => {
  test('has what is there, and fetches nothing twice', async () => {
    const { blobs, image, big } = await published();
    const registry = await ownRegistry(blobs);
    const store = await newStore();
    const seen: ImageProgress[] = [];
    const pulled = await store.pull(`${registry.host}/a/b`, { ...insecure, onProgress: (progress) => seen.push(progress) });
    expect([pulled.digest, pulled.name, digests(pulled.layers), pulled.config]).toEqual([
      image.digest,
      `${registry.host}/a/b`,
      digests(image.layers),
      image.config,
    ]);
    const size = blobs.content.get(big)?.length;
    expect(seen.filter(({ digest }) => digest === big).at(-1)).toEqual({ digest: big, doneBytes: size, totalBytes: size });
    registry.requests.length = 0;
    await store.pull(`${registry.host}/a/b@${image.digest}`, insecure);
    expect(registry.requests.filter((request) => request.includes('/blobs/'))).toEqual([
      expect.stringContaining(JSON.parse(blobs.manifests.get('latest')?.bytes.toString() as string).config.digest),
    ]);
  });

  test('that is cut goes on where it was', async () => {
    const { blobs, image, big } = await published();
    let cuts = 0;
    const cut: Trouble = ({ url, headers }, response) => {
      if (!url?.endsWith(big) || cuts === 3) return false;
      cuts++;
      const content = blobs.content.get(big) as Buffer;
      const start = Number(/\d+/.exec(headers.range ?? '0')?.[0]);
      const piece = content.subarray(start, start + 500_000);
      response.writeHead(start ? 206 : 200, {
        'content-length': content.length - start,
        ...(start ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
      });
      response.write(piece, () => response.socket?.destroySoon());
      return true;
    };
    const registry = await ownRegistry(blobs, cut);
    const pulled = await (await newStore()).pull(`${registry.host}/a`, insecure);
    expect(digests(pulled.layers)).toEqual(digests(image.layers));
    const ranges = registry.requests.filter((request) => request.includes(big)).map((request) => Number(/bytes=(\d+)-/.exec(request)?.[1] ?? 0));
    expect(ranges).toHaveLength(4);
    expect(ranges[0]).toBe(0);
    // Each later than the one before: nothing that had come was asked for again.
    for (const [index, start] of ranges.entries()) if (index > 0) expect(start).toBeGreaterThan(ranges[index - 1] as number);
  });

  test('from a server without ranges goes on as well', async () => {
    const { blobs, image, big } = await published();
    let cuts = 0;
    const registry = await ownRegistry(blobs, ({ url }, response) => {
      if (!url?.endsWith(big)) return false;
      const content = blobs.content.get(big) as Buffer;
      response.writeHead(200, { 'content-length': content.length });
      if (cuts++ < 2) response.write(content.subarray(0, 400_000 * cuts), () => response.socket?.destroySoon());
      else response.end(content);
      return true;
    });
    expect(digests((await (await newStore()).pull(`${registry.host}/a`, insecure)).layers)).toEqual(digests(image.layers));
  });

  test('that is given up is gone on with by the next', async () => {
    const { blobs, image, big } = await published();
    const registry = await ownRegistry(blobs);
    const directory = join(temporary(), 'store');
    const store = await newStore(directory);
    const controller = new AbortController();
    const reason = new Error('enough');
    const stop = ({ digest, doneBytes }: ImageProgress): void => {
      if (digest === big && doneBytes > 1_000_000) controller.abort(reason);
    };
    await expect(store.pull(`${registry.host}/a`, { ...insecure, signal: controller.signal, onProgress: stop })).rejects.toBe(reason);
    registry.requests.length = 0;
    const pulled = await store.pull(`${registry.host}/a`, insecure);
    expect(digests(pulled.layers)).toEqual(digests(image.layers));
    const [again] = registry.requests.filter((request) => request.includes(big));
    expect(Number(/bytes=(\d+)-/.exec(again ?? '')?.[1])).toBeGreaterThan(1_000_000);
    expect(readdirSync(join(directory, 'partial'))).toEqual([]);
    expect(await store.verify()).toMatchObject({ ok: true });
  });

  test('tries again what may be tried again', async () => {
    const { blobs, image } = await published();
    let refusals = 0;
    const registry = await ownRegistry(blobs, (_request, response) => {
      if (refusals++ >= 3) return false;
      if (refusals === 1) response.socket?.destroy();
      else response.writeHead(refusals === 2 ? 503 : 429, { 'retry-after': '0' }).end();
      return true;
    });
    expect((await (await newStore()).pull(`${registry.host}/a`, insecure)).digest).toBe(image.digest);
    expect(refusals).toBeGreaterThan(3);
  });

  test('of what is not what it says is refused, and nothing of it stays', async () => {
    const { blobs, image, big, small } = await published();
    const changed = (digest: string, change: (content: Buffer) => Buffer): Trouble => {
      return ({ url }, response) => {
        if (!url?.endsWith(digest)) return false;
        const content = change(Buffer.from(blobs.content.get(digest) as Buffer));
        response.writeHead(200, { 'content-length': content.length }).end(content);
        return true;
      };
    };
    const pull = async (trouble: Trouble, tag = '') => await told((await newStore()).pull(`${(await ownRegistry(blobs, trouble)).host}/a${tag}`, insecure));
    const flip = (content: Buffer): Buffer => {
      // The time in the gzip header: the same tar.
      content[4] = 1;
      return content;
    };
    expect(await pull(changed(small, flip))).toMatch(/^ERR_CLOISTER_DIGEST: a layer is not what its digest or size says/);
    expect(await pull(changed(small, (content) => Buffer.concat([content, content])))).toMatch(/^ERR_CLOISTER_DIGEST: /);
    expect(await pull(changed(big, () => Buffer.alloc(4_000_000, 'x')))).toMatch(/^ERR_CLOISTER_(DIGEST|LAYER): /);
    const config = JSON.parse(blobs.manifests.get('latest')?.bytes.toString() as string).config.digest;
    expect(await pull(changed(config, (content) => Buffer.from(content.toString().replace('/x', '/y'))))).toMatch(
      /^ERR_CLOISTER_DIGEST: a document of the image/,
    );
    expect(await pull(changed(config, (content) => Buffer.concat([content, Buffer.alloc(10)])))).toMatch(/^ERR_CLOISTER_IMAGE: .* is bigger than/);
    expect(
      await pull(
        changed(image.digest, (content) => Buffer.concat([content, Buffer.from(' ')])),
        `@${image.digest}`,
      ),
    ).toMatch(/^ERR_CLOISTER_DIGEST: the manifest/);
    expect(
      await pull(({ url }, response) =>
        Boolean(url?.endsWith('latest') && response.writeHead(200, { 'content-type': manifestType }).end(Buffer.alloc(5_000_000, ' '))),
      ),
    ).toMatch(/^ERR_CLOISTER_IMAGE: .* bigger than 4194304 bytes/);
  });

  test('with a wrong DiffID is refused', async () => {
    const { blobs } = await published();
    const manifest = JSON.parse(blobs.manifests.get('latest')?.bytes.toString() as string);
    const config = JSON.parse(blobs.content.get(manifest.config.digest)?.toString() as string);
    config.rootfs.diff_ids[0] = sha256('something else');
    const bytes = Buffer.from(JSON.stringify(config));
    const other = Buffer.from(JSON.stringify({ ...manifest, config: { ...manifest.config, digest: sha256(bytes), size: bytes.length } }));
    const registry = await ownRegistry({
      content: new Map([...blobs.content, [sha256(bytes), bytes]]),
      manifests: new Map([['latest', { type: manifestType, bytes: other }]]),
    });
    const store = await newStore();
    expect(await told(store.pull(`${registry.host}/a`, insecure))).toMatch(/^ERR_CLOISTER_DIGEST: a layer's uncompressed tar/);
    expect((await store.verify()).ok).toBe(true);
  });

  test('uses plain http only where that is asked for', async () => {
    const { blobs } = await published();
    const registry = await ownRegistry(blobs);
    expect(await told((await newStore()).pull(`${registry.host}/a`))).toMatch(/^ERR_CLOISTER_REGISTRY: GET https:/);
    expect(registry.requests).toEqual([]);
  });

  test('asks mirrors first', async () => {
    const { blobs, image } = await published();
    const [home, mirror, empty] = [await ownRegistry(blobs), await ownRegistry(blobs), await ownRegistry({ content: new Map(), manifests: new Map() })];
    const mirrors = [`${empty.host}/cache`, mirror.host];
    const auth = { username: 'me', password: 'secret' };
    const pulled = await (await newStore()).pull(`${home.host}/a`, { ...insecure, mirrors, auth } as object);
    expect([pulled.digest, pulled.name]).toEqual([image.digest, `${home.host}/a`]);
    expect([home.requests.length, empty.requests]).toEqual([0, ['GET /v2/cache/a/manifests/latest']]);
    expect(mirror.requests.length).toBeGreaterThan(2);
    expect(mirror.requests.join()).not.toContain('Basic');
    expect((await (await newStore()).pull(`${home.host}/a`, { ...insecure, mirrors: [empty.host] } as object)).digest).toBe(image.digest);
  });
});

describe('credentials', () => {
  const bearer = 'Bearer good';
  /** A registry with tokens, whose token server is part of it. */
  const guarded =
    (realm: () => string, log: string[] = []): Trouble =>
    (request: IncomingMessage, response: ServerResponse) => {
      if (request.url?.startsWith('/token')) {
        log.push(`${request.url} ${request.headers.authorization ?? 'anonymous'}`);
        if (request.headers.authorization === `Basic ${Buffer.from('me:wrong').toString('base64')}`) response.writeHead(401).end();
        else response.writeHead(200).end(JSON.stringify({ token: 'good' }));
        return true;
      }
      if (request.headers.authorization === bearer) return false;
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm()}",service="the service",scope="repository:a:pull"` }).end();
      return true;
    };

  test('buy a token, once', async () => {
    const { blobs, image } = await published();
    const log: string[] = [];
    let host = '';
    const registry = await ownRegistry(
      blobs,
      guarded(() => `http://${host}/token`, log),
    );
    host = registry.host;
    const auth = { username: 'me', password: 'secret' };
    expect((await (await newStore()).pull(`${host}/a`, { ...insecure, auth })).digest).toBe(image.digest);
    expect(log).toEqual([`/token?service=the+service&scope=repository%3Aa%3Apull Basic ${Buffer.from('me:secret').toString('base64')}`]);
    expect((await (await newStore()).pull(`${host}/a`, insecure)).digest).toBe(image.digest);
    expect(log[1]).toMatch(/ anonymous$/);
    expect((await (await newStore()).pull(`${host}/a`, { ...insecure, auth: { token: 'good' } })).digest).toBe(image.digest);
    expect(log).toHaveLength(2);
    expect(await told((await newStore()).pull(`${host}/a`, { ...insecure, auth: { token: 'bad' } }))).toMatch(/^ERR_CLOISTER_REGISTRY: .*: 401/);
    const refused = await told((await newStore()).pull(`${host}/a`, { ...insecure, auth: { username: 'me', password: 'wrong' } }));
    expect(refused).toMatch(/^ERR_CLOISTER_REGISTRY: GET .*\/token: 401/);
    expect(refused).not.toContain('wrong');
  });

  test('are asked for anew when a token has expired', async () => {
    const { blobs, image } = await published();
    let valid = 0;
    let host = '';
    const registry = await ownRegistry(blobs, (request, response) => {
      if (request.url?.startsWith('/token')) return Boolean(response.writeHead(200).end(JSON.stringify({ access_token: `t${++valid}` })));
      if (request.headers.authorization === `Bearer t${valid}` && !(valid === 1 && request.url?.includes('/blobs/'))) return false;
      return Boolean(response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${host}/token"` }).end());
    });
    host = registry.host;
    expect((await (await newStore()).pull(`${host}/a`, insecure)).digest).toBe(image.digest);
    expect(valid).toBeGreaterThan(1);
  });

  test('may be a name and a password', async () => {
    const { blobs, image } = await published();
    const good = `Basic ${Buffer.from('me:secret').toString('base64')}`;
    const registry = await ownRegistry(
      blobs,
      ({ headers }, response) => headers.authorization !== good && Boolean(response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()),
    );
    expect((await (await newStore()).pull(`${registry.host}/a`, { ...insecure, auth: { username: 'me', password: 'secret' } })).digest).toBe(image.digest);
    expect(await told((await newStore()).pull(`${registry.host}/a`, insecure))).toMatch(/^ERR_CLOISTER_REGISTRY: .*: 401/);
  });

  test('go nowhere else: not with a redirect, not to a realm in the clear', async () => {
    const { blobs, image, big } = await published();
    const elsewhere = await ownRegistry(blobs);
    let host = '';
    const registry = await ownRegistry(blobs, (request, response, all) => {
      if (guarded(() => `http://${host}/token`)(request, response, all)) return true;
      if (!request.url?.endsWith(big)) return false;
      response.writeHead(307, { location: `http://${elsewhere.host}/v2/a/blobs/${big}` }).end();
      return true;
    });
    host = registry.host;
    expect((await (await newStore()).pull(`${host}/a`, { ...insecure, auth: { username: 'me', password: 'secret' } })).digest).toBe(image.digest);
    expect(elsewhere.requests).toEqual([`GET /v2/a/blobs/${big}`]);
    const around = await ownRegistry(blobs, ({ url }, response) => Boolean(response.writeHead(302, { location: url ?? '' }).end()));
    expect(await told((await newStore()).pull(`${around.host}/a`, insecure))).toMatch(/^ERR_CLOISTER_REGISTRY: .* led on to/);
    for (const realm of ['ftp://x/', 'nothing', 'file:///etc/passwd']) {
      const odd = await ownRegistry(
        blobs,
        guarded(() => realm),
      );
      expect(await told((await newStore()).pull(`${odd.host}/a`, insecure))).toMatch(/^ERR_CLOISTER_REGISTRY: the registry asks for a token from a place/);
    }
  });
});

describe('push', () => {
  testNeeding(['program:docker-registry', 'overlay'])('sends what is missing, pull has it back: the same digests', async () => {
    const host = await dockerRegistry();
    const [store, other] = [await newStore(), await newStore()];
    const image = await store.createImage({ layers: [await store.import(rootTar())], config: { Cmd: ['/bin/probe'] } });
    const sent: ImageProgress[] = [];
    await store.push(image, `${host}/a/b:1`, { ...insecure, onProgress: (progress) => sent.push(progress) });
    const pulled = await other.pull(`${host}/a/b:1`, insecure);
    expect([pulled.digest, pulled.config]).toEqual([image.digest, image.config]);
    const root = await OverlayRootfs.create({ layers: pulled.layers });
    await runIsolated('/bin/probe', ['create', '/made', 'x'], { rootfs: root });
    const second = await other.createImage({ layers: [...pulled.layers, await root.commit(other)], config: pulled.config });
    await root[Symbol.asyncDispose]();
    await other.push(second, `${host}/a/b:2`, insecure);
    const back = await store.pull(`${host}/a/b:2`, insecure);
    expect([back.digest, digests(back.layers)]).toEqual([second.digest, digests(second.layers)]);
    expect(await told(other.push(second, `${host}/a/b@${image.digest}`, insecure))).toMatch(/^ERR_CLOISTER_DIGEST/);
  });

  test('refuses to upload from https to the clear', async () => {
    const { blobs } = await published();
    const store: LayerStore = await newStore();
    const image = await store.createImage({ layers: [await store.import(tarOf({ a: '' }))] });
    const registry = await ownRegistry(
      { ...blobs, content: new Map() },
      ({ method }, response) => method === 'POST' && Boolean(response.writeHead(202, { location: 'http://[' }).end()),
    );
    expect(await told(store.push(image, `${registry.host}/a`, insecure))).toMatch(/^ERR_CLOISTER_REGISTRY: the registry names no place to upload to/);
  });
});

describe('a reference', () => {
  test.each([
    ['debian', 'registry-1.docker.io', 'library/debian', 'latest'],
    ['debian:12', 'registry-1.docker.io', 'library/debian', '12'],
    ['docker.io/me/x', 'registry-1.docker.io', 'me/x', 'latest'],
    ['localhost/x', 'localhost', 'x', 'latest'],
    ['localhost:5000/x/y:1', 'localhost:5000', 'x/y', '1'],
    ['[::1]:5000/x', '[::1]:5000', 'x', 'latest'],
    ['ghcr.io/a/b__c/d-e:V1.2', 'ghcr.io', 'a/b__c/d-e', 'V1.2'],
    [`quay.io/x@${sha256('')}`, 'quay.io', 'x', undefined],
  ])('%s', (text, host, repository, tag) => {
    expect(parseReference(text)).toMatchObject({ host, repository, tag });
  });
  test.each([
    '',
    'A',
    'a b',
    'a:b:c',
    'a/../b',
    '../a',
    'a//b',
    'evil.com#/x',
    'a@sha256:12',
    'x.y:99999999/a',
    'host.:/a',
    'a:tag/b',
    'user@host.com/a',
    'h.x/a?b',
    'h.x/\u0000',
  ])('%j is none', (text) => {
    expect(() => parseReference(text)).toThrow(TypeError);
  });
});

test('where a blob has been led on to may not ask for credentials', async () => {
  const { blobs } = await published();
  const told: string[] = [];
  const other = await ownRegistry(blobs, ({ headers, url }, response) => {
    told.push(`${url} ${headers.authorization ?? ''}`);
    if (url?.startsWith('/token')) response.end(JSON.stringify({ token: 'x' }));
    else response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${other.host}/token"` }).end();
    return true;
  });
  const registry = await ownRegistry(blobs, ({ url }, response) => {
    if (!url?.includes('/blobs/')) return false;
    response.writeHead(307, { location: `http://${other.host}/elsewhere` }).end();
    return true;
  });
  const store = await newStore();
  const auth = { username: 'u', password: 'p' };
  await expect(store.pull(`${registry.host}/a`, { ...insecure, auth })).rejects.toMatchObject({ code: 'ERR_CLOISTER_REGISTRY' });
  expect(told).toEqual(['/elsewhere ']);
});

describe('a challenge', () => {
  test.each([
    ['Bearer realm="https://a/b",service="c, d",scope="e"', [{ scheme: 'bearer', parameters: { realm: 'https://a/b', service: 'c, d', scope: 'e' } }]],
    ['Negotiate, Basic realm="x\\"y", charset=UTF-8', [{ scheme: 'basic', parameters: { realm: 'x"y', charset: 'UTF-8' } }]],
    [
      'Basic realm=x, BEARER realm="z"',
      [
        { scheme: 'basic', parameters: { realm: 'x' } },
        { scheme: 'bearer', parameters: { realm: 'z' } },
      ],
    ],
    ['', []],
    ['=,,="', []],
  ])('%s', (header, expected) => {
    expect(parseChallenges(header)).toEqual(expected);
  });
});

beforeAll(() => {
  // A proxy of the machine's is not to see what goes to ourselves.
  for (const name of ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY']) delete process.env[name];
});
