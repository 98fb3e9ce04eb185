// @node-oauth/oauth2-server behind express: `node node_oauth2.mjs PORT`. Its express wrapper writes the
// answers; the model is a few Maps. express-rate-limit guards two paths, as it does in many services.
// `/_control` is ours.
import OAuthServer from '@node-oauth/express-oauth-server';
import express from 'express';
import { rateLimit } from 'express-rate-limit';

const port = Number(process.argv[2]);
const users = new Map(['alice', 'bob'].map((id) => [id, { id, active: true }]));
const access = new Map();
const refresh = new Map();
let broken = false;

const client = (id, grants) => [id, { id, secret: `${id}-secret`, grants }];
const userGrants = ['password', 'refresh_token'];
const clients = new Map([
  ...['app', 'app-post', 'other', 'doomed', 'fixed'].map((id) => client(id, userGrants)),
  client('machine', ['client_credentials']),
  client('limited', ['password']),
]);
const known = ['read', 'write'];

const model = {
  getClient: (id, secret) => {
    const found = clients.get(id);
    return found && (secret === undefined || found.secret === secret) ? found : undefined;
  },
  getUser: (name, password) => (password === `${name}-password` && users.get(name)?.active ? users.get(name) : undefined),
  getUserFromClient: ({ id }) => ({ id }),
  validateScope: (user, owner, scope = ['read']) => (scope.every((name) => known.includes(name)) ? scope : undefined),
  verifyScope: (token, scope) => scope.every((name) => token.scope?.includes(name)),
  saveToken: (token, owner, user) => {
    const saved = { ...token, client: owner, user };
    access.set(token.accessToken, saved);
    if (token.refreshToken) refresh.set(token.refreshToken, saved);
    return saved;
  },
  getAccessToken: (token) => access.get(token),
  getRefreshToken: (token) => {
    if (broken) throw new Error('connect ECONNREFUSED');
    return refresh.get(token);
  },
  revokeToken: ({ refreshToken }) => refresh.delete(refreshToken),
};

const oauth = new OAuthServer({ model });
const fixed = new OAuthServer({ model, alwaysIssueNewRefreshToken: false });
const once = () => rateLimit({ windowMs: 60_000, limit: 1, standardHeaders: 'draft-8', validate: false });
const hello = (req, res) => res.json({ hello: 'world' });
const past = () => new Date(Date.now() - 3_600_000);

const actions = {
  age_refresh_token: ({ token }) => { refresh.get(token).refreshTokenExpiresAt = past(); },
  age_access_token: ({ token }) => { access.get(token).accessTokenExpiresAt = past(); },
  revoke: ({ access: token, refresh: other }) => { access.delete(token); refresh.delete(other); },
  delete_client: ({ client: id }) => { clients.delete(id); },
  allow_refresh: ({ client: id }) => { clients.get(id).grants.push('refresh_token'); },
  user_active: ({ user, active }) => { users.get(user).active = active; },
  break_storage: ({ broken: now }) => { broken = now; },
};

const app = express();
app.use(express.json(), express.urlencoded({ extended: false }));
app.post('/_control', ({ body: { action, ...order } }, res) => { actions[action](order); res.json({}); });
app.post('/limited/token', once(), oauth.token());
app.post('/fixed/token', fixed.token());
app.use('/token', oauth.token());
app.get('/limited/api', once(), oauth.authenticate(), hello);
app.get('/api/write', oauth.authenticate({ scope: ['write'], addAcceptedScopesHeader: true, addAuthorizedScopesHeader: true }), hello);
app.get('/api', oauth.authenticate(), hello);
app.listen(port, '127.0.0.1');
