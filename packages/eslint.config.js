import { defineConfig } from 'eslint/config'
import reactHooks from 'eslint-plugin-react-hooks'
import typescript from 'typescript-eslint'

export default defineConfig(
  { ignores: ['*/dist', '**/node_modules', 'eslint.config.js'] },
  typescript.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        project: ['durably-client/tsconfig.json', 'durably-react/tsconfig.json', 'tsconfig.tests.json'],
        tsconfigRootDir: import.meta.dirname,
      },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: 'error',
      // There are no enums here, and the rule takes computed string keys for some.
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      // Arrow functions that only pass a call on read better without braces.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
    },
  },
  {
    files: ['*/src/**'],
    rules: {
      'max-lines': ['error', 300],
      'max-lines-per-function': ['error', { max: 30, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: ['durably-react/**'],
    extends: [reactHooks.configs.flat.recommended],
  },
  {
    // Type tests are never run: hooks need no component there.
    files: ['**/*.test-d.ts'],
    rules: { 'react-hooks/rules-of-hooks': 'off' },
  },
  {
    files: ['*/test/**', '*.config.*'],
    rules: {
      // Tests look at values they have just put there.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-empty-function': 'off',
    },
  },
)
