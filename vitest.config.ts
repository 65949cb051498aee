import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The default is inside node_modules, which another user may own.
  cacheDir: 'build-ts/vite',
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/setup.ts'],
    pool: 'forks',
    // Tests count processes, mounts and descriptors of the whole machine, and measure.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // The tests are given dist/ by Node itself, as a user's program is.
    server: { deps: { external: ['cloister', /\/dist\//] } },
  },
});
