{
  'variables': {
    'warnings': ['-Wall', '-Wextra', '-Wno-missing-field-initializers', '-Werror'],
  },
  'conditions': [
    ['OS=="linux"', {
      'targets': [
        {
          # What runs after the clone shares a thread's TLS with us: no stack protector, whose canary lives there.
          'target_name': 'cloister-child',
          'type': 'static_library',
          'sources': ['<!@(grep -v "^#" csrc/child/sources.txt)'],
          'cflags': ['<@(warnings)', '-fno-stack-protector', '-fvisibility=hidden'],
          'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti'],
          'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
        },
        {
          # PID 1 of sandboxes: no libc, so that it runs in any root. Its bytes become part of the addon.
          'target_name': 'cloister-init',
          'type': 'executable',
          'sources': ['csrc/init/init.c'],
          'cflags!': ['-pthread', '-m64'],
          'cflags': ['<@(warnings)', '-ffreestanding', '-fno-stack-protector', '-fno-pie', '-O2'],
          'ldflags!': ['-pthread', '-rdynamic'],
          'ldflags': ['-static', '-nostdlib', '-no-pie', '-Wl,--build-id=none', '-s'],
        },
        {
          'target_name': 'cloister',
          'dependencies': [
            'cloister-child',
            'cloister-init',
            '<!(node -p "require(\'node-addon-api\').targets"):node_addon_api',
          ],
          'sources': ['<!@(grep -v "^#" csrc/sources.txt)', '<(SHARED_INTERMEDIATE_DIR)/embed.S'],
          'actions': [
            {
              # Written anew when init changes, so that make sees that what it includes has.
              'action_name': 'embed-init',
              'inputs': ['<(PRODUCT_DIR)/cloister-init', 'csrc/init/embed.S'],
              'outputs': ['<(SHARED_INTERMEDIATE_DIR)/embed.S'],
              'action': ['cp', '<(PRODUCT_DIR)/cloister-init', 'csrc/init/embed.S', '<(SHARED_INTERMEDIATE_DIR)'],
            },
          ],
          'defines': [
            'NAPI_VERSION=9',
            'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
          ],
          'include_dirs': ['<(SHARED_INTERMEDIATE_DIR)'],
          'cflags': ['<@(warnings)', '-fvisibility=hidden', '-fstack-protector-strong', '-D_FORTIFY_SOURCE=2'],
          'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti'],
          'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
          # nodelete: Node closes an addon when the last worker that has loaded it ends, and what is static here would begin anew.
          'ldflags': ['-Wl,-z,relro,-z,now,-z,nodelete', '-Wl,--as-needed'],
        },
      ],
    }, {
      # Importing cloister works elsewhere; using it says why it cannot be used.
      'targets': [{ 'target_name': 'cloister', 'type': 'none' }],
    }],
  ],
}
