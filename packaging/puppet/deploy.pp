# Deploys a service that hands off, with Puppet: an example, to be adapted.
#
# "hdctl unit generate --install" and "hdctl upgrade --if-changed" do nothing where
# nothing is to do. Puppet wants to know that beforehand: "unless" asks, without
# changing anything.
#
#   - "hdctl unit diff" ends with 0 if the installed units are those that the flags
#     ask for.
#   - In the status, "disk" compares the program on disk with the one that runs.
define handoff::service (
  String        $source,
  Array[String] $listen,
  Array[String] $flags = [],
  String        $path  = "/usr/local/bin/${title}",
) {
  $listen_flags = $listen.map |$l| { "--listen ${l}" }
  $unit_flags   = (["--exec ${path}"] + $listen_flags + $flags).join(' ')

  # Puppet writes a file beside it, and renames that: the program that runs keeps its
  # own.
  file { $path:
    ensure => file,
    source => $source,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }

  -> exec { "hdctl units of ${title}":
    command => "hdctl unit generate ${title} --install ${unit_flags}",
    unless  => "hdctl unit diff ${title} ${unit_flags}",
    path    => ['/usr/local/bin', '/usr/bin', '/bin'],
  }

  # "--install" starts it once, when it enables it; this, whenever it is stopped.
  -> service { "${title}.service":
    ensure => running,
  }

  # Fails if the new version does not serve; then the old one goes on, and the next
  # run tries again.
  -> exec { "hdctl upgrade ${title}":
    command => "hdctl wait ${title} --for=ready --timeout=60s && hdctl upgrade ${title} --if-changed",
    unless  => "hdctl status ${title} -o json | grep -q '\"state\": \"same\"'",
    path    => ['/usr/local/bin', '/usr/bin', '/bin'],
    provider => shell,
    timeout => 180,
  }
}

# handoff::service { 'app':
#   source => 'puppet:///modules/app/app',
#   listen => ['http=8080'],
#   flags  => ['--profile strict'],
# }
