/**
 * The only module that imports the addon. Everything it exports is named `Native…` or called through {@link native},
 * and none of it reaches the public interface.
 */
import * as native from '../native/index.cjs'

export type { NativeAtlas, NativeJob, NativeModel, NativeStore } from '../native/index.cjs'
export { native }
