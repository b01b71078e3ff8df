import type { Plugin } from 'vite'
import { defineConfig } from 'vite'

/** A page opened from disk may not load module scripts, so the bundle is a classic script at the end of the body. */
const classicScript: Plugin = {
  name: 'classic-script',
  enforce: 'post',
  transformIndexHtml: (html) => {
    const tag = /\s*<script type="module"[^>]*src="([^"]+)"[^>]*><\/script>/
    const source = tag.exec(html)?.[1]
    const page = html.replace(tag, '').replaceAll(' crossorigin', '')
    return page.replace('</body>', `  <script src="${source}"></script>\n  </body>`)
  },
}

export default defineConfig({
  root: 'ts/report/page',
  base: './',
  plugins: [classicScript],
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: '../../../dist/report/page',
    emptyOutDir: true,
    modulePreload: false,
    // A style sheet of its own: the page's policy forbids inline styles.
    cssCodeSplit: false,
    target: 'es2022',
    rollupOptions: {
      output: { format: 'iife', entryFileNames: 'page.js', assetFileNames: 'page[extname]' },
    },
  },
})
