// Chromium, with what docs/programs.md says that it needs.
import { runIsolated, type SpawnOptions } from 'cloister';
import { describe, expect } from 'vitest';
import { testNeeding } from '../helpers/lane.js';

const page = `<!doctype html><title>Inside</title><p id=answer>?</p>
<script>document.getElementById('answer').textContent = [6 * 7, location.protocol, document.title].join(' ')</script>`;
const flags = ['--headless=new', '--no-sandbox', '--dump-dom'];

/** It tells about buses that it does not find, and which: nothing that we could compare. */
async function paragraph(args: readonly string[], options: SpawnOptions = {}): Promise<string | undefined> {
  const { stdout, stderr, exitCode } = await runIsolated('chromium', args, options);
  expect({ exitCode, stderr: exitCode === 0 ? '' : stderr }).toEqual({ exitCode: 0, stderr: '' });
  return /<p id="answer">(.*?)<\/p>/.exec(stdout)?.[1];
}

describe('Chromium without its own sandbox', () => {
  testNeeding(['program:chromium'])(
    'a data: page, as root inside',
    async () => {
      expect(await paragraph([...flags, `data:text/html,${encodeURIComponent(page)}`])).toBe('42 data: Inside');
    },
    180_000,
  );

  testNeeding(['program:chromium'])(
    'a file, as another user, with more shared memory',
    async () => {
      const options = {
        user: { uid: 1000, gid: 1000 },
        env: { HOME: '/tmp' },
        mounts: [
          { type: 'file', target: '/srv/page.html', contents: page },
          { type: 'tmpfs', target: '/dev/shm', size: '512M', mode: 0o1777 },
        ],
      } as const;
      expect(await paragraph([...flags, 'file:///srv/page.html'], options)).toBe('42 file: Inside');
    },
    180_000,
  );
});
