// Drives the unmodified clients: one JSON array of operations in the variable OPERATIONS, one JSON array of results in the file RESULT.
// The clients write to standard output, as they do in a job.
import * as fs from 'node:fs'

const clients = {
  'artifact-2': () => import('artifact-2'),
  'artifact-6': () => import('artifact-6'),
  'cache-4': () => import('cache-4'),
  'cache-6': () => import('cache-6'),
  'tool-cache-2': () => import('tool-cache-2'),
  'tool-cache-4': () => import('tool-cache-4'),
}

async function load(name) {
  const loaded = await clients[name]()
  return loaded.default?.saveCache || loaded.default?.DefaultArtifactClient || loaded.default?.cacheDir ? loaded.default : loaded
}

const operations = {
  async upload({ client, name, files, root, options }) {
    const { DefaultArtifactClient } = await load(client)
    return new DefaultArtifactClient().uploadArtifact(name, files, root, options)
  },
  async list({ client, options }) {
    const { DefaultArtifactClient } = await load(client)
    return new DefaultArtifactClient().listArtifacts(options)
  },
  async get({ client, name, options }) {
    const { DefaultArtifactClient } = await load(client)
    return new DefaultArtifactClient().getArtifact(name, options)
  },
  async download({ client, id, options }) {
    const { DefaultArtifactClient } = await load(client)
    return new DefaultArtifactClient().downloadArtifact(id, options)
  },
  async delete({ client, name }) {
    const { DefaultArtifactClient } = await load(client)
    return new DefaultArtifactClient().deleteArtifact(name)
  },
  async save({ client, paths, key }) {
    const { saveCache } = await load(client)
    return saveCache(paths, key)
  },
  async set({ variables }) {
    for (const [name, value] of Object.entries(variables)) {
      if (value === '') delete process.env[name]
      else process.env[name] = value
    }
  },
  // What setup actions do: look for the tool, and download it where it is not there. `url` leads to a tar archive, or is empty: just look.
  async tool({ client, name, version, url }) {
    const tools = await load(client)
    const found = tools.find(name, version)
    if (found || !url) return { found }
    const unpacked = await tools.extractTar(await tools.downloadTool(url))
    return { made: await tools.cacheDir(unpacked, name, version) }
  },
  async restore({ client, paths, key, restoreKeys, options }) {
    const { restoreCache } = await load(client)
    return restoreCache(paths, key, restoreKeys, options)
  },
}

async function main() {
  const results = []
  for (const operation of JSON.parse(process.env.OPERATIONS)) {
    try {
      results.push({ value: (await operations[operation.do](operation)) ?? null })
    } catch (error) {
      results.push({ error: `${error.name}: ${error.message}` })
    }
  }
  fs.writeFileSync(process.env.RESULT, JSON.stringify(results))
}

main()
