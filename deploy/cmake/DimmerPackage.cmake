# Debian packages by CPack: what goes into them, and their control data. Read by the preset
# `package`, whose prefix is /usr; paths in deploy/debian and deploy/systemd count on that.
if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  message(FATAL_ERROR "CMAKE_INSTALL_PREFIX: found ${CMAKE_INSTALL_PREFIX}, expected /usr: use the preset `package`")
endif()
include(GNUInstallDirs)  # with the prefix /usr: SYSCONFDIR is /etc, LOCALSTATEDIR is /var
set(deploy ${CMAKE_SOURCE_DIR}/deploy)

set(DIMMER_PACKAGE_MAINTAINER "Dimmer developers <dimmer@packages.invalid>"
  CACHE STRING "Maintainer field of the Debian packages")

configure_file(${deploy}/debian/changelog.in ${CMAKE_BINARY_DIR}/changelog.Debian @ONLY)
set(changelogs ${CMAKE_BINARY_DIR}/changelog.gz ${CMAKE_BINARY_DIR}/changelog.Debian.gz)
add_custom_command(OUTPUT ${changelogs}
  DEPENDS ${CMAKE_SOURCE_DIR}/CHANGELOG.md ${CMAKE_BINARY_DIR}/changelog.Debian
  COMMAND gzip -9nc ${CMAKE_SOURCE_DIR}/CHANGELOG.md > ${CMAKE_BINARY_DIR}/changelog.gz
  COMMAND gzip -9nc ${CMAKE_BINARY_DIR}/changelog.Debian > ${CMAKE_BINARY_DIR}/changelog.Debian.gz)
add_custom_target(dimmer_changelogs ALL DEPENDS ${changelogs})

# dimmer_debian_doc(COMPONENT PACKAGE COPYRIGHT): /usr/share/doc/PACKAGE as Debian's policy wants it.
function(dimmer_debian_doc component package copyright)
  set(doc ${CMAKE_INSTALL_FULL_DATADIR}/doc/${package})
  install(FILES ${changelogs} ${CMAKE_SOURCE_DIR}/NOTICE DESTINATION ${doc} COMPONENT ${component})
  install(FILES ${copyright} DESTINATION ${doc} RENAME copyright COMPONENT ${component})
endfunction()

install(TARGETS dimmer-server DESTINATION ${CMAKE_INSTALL_FULL_BINDIR} COMPONENT server)
if(TARGET dimmerctl)
  install(TARGETS dimmerctl DESTINATION ${CMAKE_INSTALL_FULL_BINDIR} COMPONENT server)
endif()
install(FILES ${deploy}/debian/server.yaml DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/dimmer COMPONENT server)
install(FILES ${deploy}/systemd/dimmer-server.service DESTINATION /lib/systemd/system COMPONENT server)
install(DIRECTORY DESTINATION ${CMAKE_INSTALL_FULL_DATADIR}/dimmer/models COMPONENT server)
install(DIRECTORY DESTINATION ${CMAKE_INSTALL_FULL_LOCALSTATEDIR}/lib/dimmer/models COMPONENT server)
install(FILES docs/server.md docs/deploy.md DESTINATION ${CMAKE_INSTALL_FULL_DATADIR}/doc/dimmer-server COMPONENT server)
dimmer_debian_doc(server dimmer-server ${deploy}/debian/copyright)

option(DIMMER_MODEL_PACKAGE "Make the packages of the demonstration models too" ON)
if(DIMMER_MODEL_PACKAGE)
  foreach(model emotion stories)
    install(DIRECTORY models/${model} DESTINATION ${CMAKE_INSTALL_FULL_DATADIR}/dimmer/models COMPONENT model-${model})
    dimmer_debian_doc(model-${model} dimmer-model-${model} ${deploy}/debian/copyright.model-${model})
    string(TOUPPER ${model} key)
    set(CPACK_DEBIAN_MODEL-${key}_PACKAGE_NAME dimmer-model-${model})
    set(CPACK_DEBIAN_MODEL-${key}_PACKAGE_ARCHITECTURE all)
    set(CPACK_DEBIAN_MODEL-${key}_PACKAGE_SECTION science)
    set(CPACK_DEBIAN_MODEL-${key}_PACKAGE_ENHANCES dimmer-server)
    list(APPEND model_components model-${model})
  endforeach()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_NAME dimmer)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # each component has its own first line
set(CPACK_PACKAGE_VENDOR Dimmer)
set(CPACK_PACKAGE_CONTACT "${DIMMER_PACKAGE_MAINTAINER}")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_COMPONENTS_ALL server ${model_components})

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_SERVER_PACKAGE_NAME dimmer-server)
set(CPACK_DEBIAN_SERVER_PACKAGE_SECTION net)
set(CPACK_DEBIAN_SERVER_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_SERVER_PACKAGE_DEPENDS "adduser, init-system-helpers (>= 1.54)")
set(CPACK_DEBIAN_SERVER_PACKAGE_SUGGESTS "dimmer-model-emotion, dimmer-model-stories")
set(CPACK_DEBIAN_SERVER_PACKAGE_CONTROL_EXTRA
  "${deploy}/debian/conffiles;${deploy}/debian/postinst;${deploy}/debian/prerm;${deploy}/debian/postrm;${deploy}/debian/triggers")
set(CPACK_COMPONENT_SERVER_DESCRIPTION "inference server with a compute budget per request
Serves transformers over gRPC (its own API and the Open Inference Protocol v2).
A client, or the operator, chooses how much of a converted model each request
runs, and every answer says how much it was.")

set(CPACK_COMPONENT_MODEL-EMOTION_DESCRIPTION "emotion classifier for dimmer-server
A MiniLM that tells six emotions in short English texts, converted to experts
that a compute budget can switch off. A demonstration, not a product.")
set(CPACK_COMPONENT_MODEL-STORIES_DESCRIPTION "story-telling language model for dimmer-server
A small GPT-2 that continues stories for children, converted to experts that a
compute budget can switch off. A demonstration, not a product.")
include(CPack)
