// `npm run build`: node packages, native addon, TypeScript and the report page.
import { setup } from './lib/setup.mjs'

await setup()
