import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { addDatasetOptions, datasetFrom } from '../ts/cli/options.js'
import { checkDataset, type Dataset, datasetKinds } from '../ts/dataset.js'
import { extract } from '../ts/index.js'
import { errorOf, root, temporary } from './support/data.js'

const work = temporary()

describe('checkDataset', () => {
  test.each<[Dataset]>([
    [{ scenes: { pairs: 3 } }],
    [{ coco: { images: 'a', captions: 'b', panoptic: 'c', masks: true } }],
    [{ folder: 'photos' }],
    [{ folder: { images: 'photos', captions: 'c.csv' } }],
    [{ webdataset: 'shards/{000..331}.tar' }],
    [{ webdataset: ['a.tar', 'https://example.org/b.tar'] }],
    [{ webdataset: { urls: 'a.tar', caption: 'alt', image: 'jpg' } }],
    [{ webdataset: { urls: ['a.tar'] } }],
    [{ parquet: '*.parquet' }],
    [{ parquet: ['a.parquet', 'b.parquet'], image: 'photo', caption: 'sentences.raw' }],
    [{ flickr: { images: 'a', captions: 'b', split: 'test' } }],
    [{ cc3m: { images: 'a' } }],
    [{ cc3m: { images: 'a', captions: 'b.tsv' } }],
  ])('%j is taken as it is', (dataset) => {
    expect(checkDataset(dataset)).toBe(dataset)
  })

  test.each<[unknown, string, string]>([
    [null, 'E_OPTION', 'scenes'],
    [{}, 'E_OPTION', 'scenes'],
    ['coco', 'E_OPTION', 'scenes'],
    [{ webdatset: 'x' }, 'E_UNKNOWN_OPTION', "did you mean 'webdataset'?"],
    [{ coco: { images: 'a' } }, 'E_OPTION', 'dataset.coco.captions'],
    [{ coco: { images: 'a', captions: 'b', instance: 'c' } }, 'E_UNKNOWN_OPTION', "did you mean 'instances'?"],
    [{ coco: 'a' }, 'E_OPTION', 'images, captions'],
    [{ scenes: { pairs: '3' } }, 'E_OPTION', 'a number'],
    [{ coco: { images: 'a', captions: 'b', masks: 'yes' } }, 'E_OPTION', 'true or false'],
    [{ webdataset: [] }, 'E_OPTION', 'a list of texts'],
    [{ webdataset: { urls: [] } }, 'E_OPTION', 'dataset.webdataset.urls'],
    [{ webdataset: 'a', caption: 'b' }, 'E_UNKNOWN_OPTION', 'caption'],
    [{ parquet: 'a', caption: 3 }, 'E_OPTION', 'dataset.caption'],
    [{ parquet: 'a', captions: 'b' }, 'E_UNKNOWN_OPTION', "did you mean 'caption'?"],
    [{ parquet: 'a', folder: 'b' }, 'E_OPTION', 'one of'],
    [{ flickr: { images: 'a', captions: '' } }, 'E_OPTION', 'dataset.flickr.captions'],
    [{ cc3m: {} }, 'E_OPTION', 'dataset.cc3m.images'],
  ])('%j is refused', async (dataset, code, part) => {
    const error = await errorOf(() => checkDataset(dataset as Dataset))
    expect(error.code).toBe(code)
    expect(`${error.message} ${error.hint}`).toContain(part)
  })
})

describe('flags', () => {
  const parse = (...args: string[]): Record<string, unknown> =>
    datasetFrom(addDatasetOptions(new Command().exitOverride()).parse(args, { from: 'user' }).opts())

  test.each<[string, Dataset]>([
    ['scenes --pairs 3 --seed 4', { scenes: { pairs: 3, seed: 4 } }],
    ['coco --images a --captions b --panoptic c', { coco: { images: 'a', captions: 'b', panoptic: 'c' } }],
    [
      'coco --images a --captions b --instances c --masks',
      { coco: { images: 'a', captions: 'b', instances: 'c', masks: true } },
    ],
    ['webdataset --shards a/{0..3}.tar', { webdataset: { urls: ['a/{0..3}.tar'] } }],
    [
      'webdataset --shards a.tar b.tar --caption-field alt --image-extension jpg',
      { webdataset: { urls: ['a.tar', 'b.tar'], caption: 'alt', image: 'jpg' } },
    ],
    ['parquet --files a.parquet b.parquet', { parquet: ['a.parquet', 'b.parquet'] }],
    [
      'parquet --files a.parquet --image-column p --caption-column c',
      { parquet: ['a.parquet'], image: 'p', caption: 'c' },
    ],
    ['flickr --images a --captions b --split test', { flickr: { images: 'a', captions: 'b', split: 'test' } }],
    ['cc3m --images a --captions b', { cc3m: { images: 'a', captions: 'b' } }],
    ['folder --images a', { folder: { images: 'a' } }],
  ])('--dataset %s', (flags, dataset) => {
    const parsed = parse('--dataset', ...flags.split(' ')).dataset as Dataset
    expect(parsed).toEqual(dataset)
    expect(checkDataset(parsed)).toBe(parsed)
  })

  test('every kind has flags; what is missing or does not belong is named', async () => {
    for (const kind of datasetKinds) {
      const error = await errorOf(() => parse('--dataset', kind))
      expect([error.code, error.message]).toEqual(['E_OPTION', expect.stringContaining(kind)])
    }
    expect(await errorOf(() => parse('--dataset', 'folder', '--images', 'a', '--panoptic', 'b'))).toMatchObject({
      code: 'E_OPTION',
      details: { option: 'panoptic' },
    })
    expect(await errorOf(() => parse('--dataset', 'parkett'))).toMatchObject({ code: 'E_UNKNOWN_OPTION' })
  })

  test('a data set of a config file stays what it is', () => {
    expect(datasetFrom({ dataset: { folder: 'a' }, out: 'b' })).toEqual({ dataset: { folder: 'a' }, out: 'b' })
  })
})

test('the addon reads every kind in the form that is checked here', async () => {
  const parquet = join(root, 'crates/lucid-data/tests/fixtures/nested-snappy.parquet')
  const store = await extract({ dataset: { parquet }, out: join(work, 'parquet') })
  expect(store.info(0).captions).toEqual(['One.', 'Another one.'])
  expect(store.meta.provenance).toMatchObject({ dataset: { parquet: 'nested-snappy.parquet' } })

  const images = join(work, 'photos')
  mkdirSync(images)
  copyFileSync(join(root, 'crates/lucid-vlm/tests/fixtures/world-0.png'), join(images, '0.png'))
  writeFileSync(join(images, '0.txt'), 'a star')
  writeFileSync(join(work, 'tokens.token'), '0.png#1\ta second star\n0.png#0\ta star\n')
  const flickr = await extract({
    dataset: { flickr: { images, captions: join(work, 'tokens.token') } },
    out: join(work, 'flickr'),
  })
  expect(flickr.info(0).captions).toEqual(['a star', 'a second star'])
  expect((await extract({ dataset: { cc3m: { images } }, out: join(work, 'cc3m') })).pairs).toBe(1)
  const missing = extract({ dataset: { webdataset: join(work, '{0..1}.tar') }, out: join(work, 'none') })
  expect(await errorOf(() => missing.result)).toMatchObject({ code: 'E_IO' })
})
