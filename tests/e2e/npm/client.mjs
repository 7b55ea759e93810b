// Drives the unmodified clients: one JSON array of operations on the command line, one JSON array of results in the file RESULT.
// The clients write to standard output, as they do in a job.
import { pathToFileURL } from 'node:url'
import * as fs from 'node:fs'


async function load(name) {
  return import(pathToFileURL(resolve(name)).href)
}

function resolve(name) {
  const root = `${process.env.CLIENTS}/node_modules/${name}`
  const about = JSON.parse(fs.readFileSync(`${root}/package.json`))
  return `${root}/${about.main}`
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
  async restore({ client, paths, key, restoreKeys, options }) {
    const { restoreCache } = await load(client)
    return (await restoreCache(paths, key, restoreKeys, options)) ?? null
  },
}

const results = []
for (const operation of JSON.parse(process.argv[2])) {
  try {
    results.push({ value: await operations[operation.do](operation) })
  } catch (error) {
    results.push({ error: `${error.name}: ${error.message}` })
  }
}
fs.writeFileSync(process.env.RESULT, JSON.stringify(results))
